"""The zoo: a small world of toys, and how the embedded prior was taught what they look like."""
