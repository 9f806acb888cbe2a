"""The commands, one file each: what a command takes (`add_to`) and what it calls and prints (`run`)."""
