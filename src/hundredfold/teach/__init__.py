"""A web page on which a person teaches a model by showing it pictures."""
