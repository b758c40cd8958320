"""The demo and the study: clients of the stages."""
