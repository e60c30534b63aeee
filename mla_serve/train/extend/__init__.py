"""Add modalities to a bundle whose head stays as it is."""
