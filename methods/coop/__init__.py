"""CoOp: learned context words in front of a normal and an anomalous template."""
