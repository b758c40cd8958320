"""Training recipes, named for what they reproduce. Data only: `clipvip-train NAME` finds NAME.yaml here."""
