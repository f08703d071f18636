"""What the machine was like: samples, minutes and hours in the database, and questions to them."""
