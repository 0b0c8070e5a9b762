"""Plans a sweep, runs it, and stores its cells."""
