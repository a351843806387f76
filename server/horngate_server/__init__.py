"""Horngate's server: serves Keras SavedModels over gRPC."""
