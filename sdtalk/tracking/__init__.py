"""Tracking: picture to HeadTrack; face detection, face mesh, segmentation, camera fit."""
