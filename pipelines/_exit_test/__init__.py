"""`lockstep exit-test`: states in which something went wrong, made on purpose, and a checker of what somebody says of them."""
