"""Load data: CIFAR-100, the bundled sample, Kaggle datasets, and your own pictures."""
