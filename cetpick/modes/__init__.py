"""The ways to train: each mode's module holds its settings, how it draws batches, and what it minimises."""
