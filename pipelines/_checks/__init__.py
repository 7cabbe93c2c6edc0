"""What `lockstep check` looks for, one module a subject."""
