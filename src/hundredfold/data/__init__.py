"""Where pictures come from: CIFAR-100, the bundled sample, Kaggle, a person's own files."""
