"""The containers' work, one module a step: an `Input`, an `Output`, one thin function that calls `lockstep`."""
