"""What only `mini` needs: mouth codes from sound, and the geometry of talking before anything is rendered."""
