"""The methods of the findings, in words, by the name that each number carries."""

INTRACRANIAL = "intracranial"
TISSUES_BY_VOXEL = "tissues-by-voxel"
TISSUES_BY_PART = "tissues-by-part"
VENTRICLES = "ventricles"
FRACTION = "brain-parenchymal-fraction"
SIDES = "sides"
LESIONS = "lesions"
QUALITY = "quality"

_TISSUES = (
    "Noise is measured and reduced by nonlinear diffusion. Fluid, grey and white matter follow from bias-corrected"
    " intensity, the tissue maps of the MNI ICBM152 2009a template, warped to the brain (12 parameters, then"
    " demons), and neighbouring voxels (Gaussian mixture with partial volumes, Markov random field). "
)

_FLUID = (
    "Cerebrospinal fluid lacks what the skull strip leaves out at the skull: 6 to 15 % in generated heads."
)

METHODS = {
    INTRACRANIAL: (
        "Skull strip with the two nets of deepbet 1.0.2 on a grid of 192 voxels a side; a head that is tilted by more"
        " than 9 degrees is turned upright first. The volume is that of the stripped brain with the fluid about it;"
        " fluid that the nets leave out at the skull is missing, the more the more a brain has shrunk."
    ),
    TISSUES_BY_VOXEL: _TISSUES
    + "Each voxel is counted as fluid where fluid fills more than half of it, else as the larger of the grey and white"
    " matter in it; a sheet of grey one voxel thick between ventricle and white matter as the one or the other. "
    + _FLUID,
    TISSUES_BY_PART: _TISSUES
    + "Each voxel is counted by the parts of tissue in it, because the slices are thick. "
    + _FLUID,
    VENTRICLES: (
        "Lateral, third and fourth ventricle: voxels of fluid that hang together with the warped template's ventricles,"
        " within 6 mm of them and nearer to them than to its other fluid, and at least 8 mm below the surface of the"
        " intracranial space; and the darker voxels of a sheet of grey, one voxel thick, between them and white matter."
    ),
    FRACTION: (
        "Grey and white matter over intracranial volume. Too high by some per cent, the more the more a brain has"
        " shrunk, for fluid at the skull is missing in the latter; methods differ by as much."
    ),
    SIDES: (
        "Left and right of the middle plane of the symmetric template, bent to the brain and moved to where the brain"
        " is most like its mirror image; index = 200 (left - right) / (left + right)."
    ),
    LESIONS: (
        "Places in white matter that are darker or brighter than the white matter around them, scored by contrast,"
        " shape and surroundings. Candidates for a physician to look at; small, faint and cortical lesions are missed."
    ),
    QUALITY: (
        "Noise: pseudo-residuals in white matter. SNR: white matter over noise; CNR: white less grey matter over noise."
        " Ghosting: brightness of the air half a field of view from the head, less that of other air, over white"
        " matter, worst axis. Non-uniformity: 98th over 2nd percentile of the fitted coil brightness in the brain, less"
        " one. Coverage: part of the aligned template's brain inside the field. Alignment: correlation with the aligned"
        " template."
    ),
}
