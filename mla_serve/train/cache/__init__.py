"""What training computes once and keeps on disk: decoded pictures, recordings and texts, and features of frozen encoders.

store     arrays by the hash of the content that they were made from
locks     files that keep processes out
folders   one folder for each way of decoding and for each encoder; listing and removing them
"""
