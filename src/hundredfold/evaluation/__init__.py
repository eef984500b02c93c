"""What a finished run is worth: measured again, compared with others, and explained."""
