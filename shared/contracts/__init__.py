"""What crosses between services: codes, events, their sensitivity tiers, the envelope and the JSON Schemas."""
