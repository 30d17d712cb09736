"""Look-Aside Adapters: the module, where they stand in a model, their files, several as one, and what merging makes."""
