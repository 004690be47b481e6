"""What is not as the normal images are: a score for every pixel and image, learned without labels."""
