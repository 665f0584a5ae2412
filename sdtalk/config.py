"""The size of a model: one flat record, saved as config.json beside the weights; it alone rebuilds the network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SDTalkConfig:
    """Everything needed to rebuild a network. The defaults are `mini`, the model bundled with the package."""

    name: str = "mini"

    # image encoder
    encoder_width: int = 16  # channels at the finest level, doubled at each coarser one
    local_channels: int = 32
    global_width: int = 128

    # visible branch: a plane of plane_size^2 points, lifted to a front and a back layer
    plane_size: int = 272
    margin_px: int = (
        16  # the photo is continued so far over its border, so that moving shoulders show no edge
    )

    # completion branch
    template_width: int = 64  # length of the learned vector of each template point

    # Gaussians; the first three channels are RGB
    feature_channels: int = 32

    # motion fields
    hash_levels: int = 6
    hash_base_resolution: int = 8
    hash_finest_resolution: int = 192
    hash_log2_table: int = 15
    motion_width: int = 48
    eye_scale: float = 25.0  # lid gaps are about 0.04 head-space units: too small for a network to hear

    # sound: windows of 37 log-mel steps (+-180 ms) -> mouth code
    mel_bins: int = 80
    audio_width: int = 128
    audio_code_width: int = 5

    # neural renderer
    renderer_width: int = 16
