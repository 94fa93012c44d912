"""Our tests; a library in the environment may bring a package of the same name."""
