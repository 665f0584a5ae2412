"""Picture -> HeadTrack: face detection, face mesh, matting and the camera fit."""
