"""Principal components and what follows from them: sources, extremes, health, views."""
