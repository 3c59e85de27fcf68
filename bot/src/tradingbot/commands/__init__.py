"""The commands of the command line, a module each: its options, its help with examples, and what it sets off."""
