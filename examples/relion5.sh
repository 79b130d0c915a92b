#!/usr/bin/env bash
# Run in the RELION 5 project folder. Labels come from RELION's own picker or any other particles.star.
set -euo pipefail

tomograms=${1:?tomograms.star, for instance Tomograms/job007/tomograms.star}
labels=${2:?particles.star with the labels}
diameter=${3:?particle diameter in angstrom}

# The tomograms that have labels train the model; all are picked.
cetpick pick "$tomograms" --labels "$labels" --diameter "$diameter" --output Cetpick ${CETPICK_OPTIONS:-}

# In RELION 5: "Extract subtomos" with Cetpick/optimisation_set.star as input.
ls Cetpick/particles.star Cetpick/optimisation_set.star
