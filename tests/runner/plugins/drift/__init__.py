"""An odd method for the tests of the runner."""
