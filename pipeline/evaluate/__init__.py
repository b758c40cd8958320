"""The stage `clipvip-eval`: retrieval, multiple choice and actions."""
