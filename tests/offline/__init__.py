"""What the commands write into the home folder and whom they ask over the network: nothing, nobody."""
