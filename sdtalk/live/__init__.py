"""Live: frames of mini on a CPU, many times as fast as `SDTalk.render` makes them, and the same to the eye."""
