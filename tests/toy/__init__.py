"""A site of two services as small as can be, to try what all services share.

`intake` here owns things: a write appends as many events as it is asked for. `routing` consumes them: an effect is a row.
What an event of a test does to its consumer stands in its `procedure`.
"""
