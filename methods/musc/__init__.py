"""MuSc: the images of an unlabelled test set score each other (transductive)."""
