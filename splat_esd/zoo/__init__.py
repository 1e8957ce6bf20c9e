"""The zoo: 26 toys, and the training of the embedded prior and of the judge on pictures of them."""
