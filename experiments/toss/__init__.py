"""The study `toss`: a measured cube, and two hinged boxes, thrown on a board."""
