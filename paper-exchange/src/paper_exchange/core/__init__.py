"""The exchange as a pure state machine: inputs at exchange time go in, answers and events come out."""
