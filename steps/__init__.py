"""One module a container step: Input, Output, one function. What they do lives in `lockstep`."""
