"""The manners that the four services share over HTTP."""
