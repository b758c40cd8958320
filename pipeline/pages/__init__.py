"""Pages of HTML and tables of text that several stages share."""
