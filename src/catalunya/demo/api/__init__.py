"""The protocols of the demo portal, each in a module of the name of the protocol that it imitates."""
