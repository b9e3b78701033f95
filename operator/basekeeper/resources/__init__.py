"""The custom resources as typed models: what an operator may write, checked once, at the edge.

The models hold shapes, defaults and the text of every field (`kubectl explain` shows it); `manifest` reads
them from files and turns every mistake into one line; what the engine takes comes out as
`basekeeper.cache.settings.Policy`. Nothing here talks to an API server.
"""
