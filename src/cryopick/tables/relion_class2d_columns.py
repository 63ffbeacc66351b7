"""Labels of RELION's Class2D files: their order, our names, and values that we have none for.

Each table of values lists its labels in the order RELION writes them. A `Named` label holds one
of our values, or one that the writer works out: names in `WORKED_OUT` always (number of classes,
names of the other files), the rest unless the file that was read said otherwise. The labels
without a name hold what a 2D run of RELION with its usual options writes there.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = [
    "ACCURACIES",
    "CLASSES",
    "GROUPS",
    "MODEL",
    "NOISE",
    "NOT_ESTIMATED",
    "OPTIMISER",
    "RESULTS",
    "SAMPLING",
    "SPECTRA",
    "WORKED_OUT",
    "Named",
    "RelionVersion",
]

RelionVersion = Literal["3.1", "5"]


class Named(NamedTuple):
    """A label that holds the value of this name."""

    name: str


_Labels = dict[str, object]

NOT_ESTIMATED: Final = 999.0  # an accuracy, or the resolution at zero frequency, in the files
ACCURACIES: Final = ("accuracy_rotations", "accuracy_translations")  # NaN here
WORKED_OUT: Final = frozenset(
    {"n_classes", "n_groups", "n_optics_groups", "root"}
    | {"model_file", "data_file", "sampling_file"}
)

RESULTS: Final[dict[str, str]] = {  # what a classification adds to a table of particles
    "group_number": "rlnGroupNumber",
    "rot": "rlnAngleRot",
    "tilt": "rlnAngleTilt",
    "psi": "rlnAnglePsi",
    "shift_x": "rlnOriginXAngst",
    "shift_y": "rlnOriginYAngst",
    "class_number": "rlnClassNumber",
    "norm_correction": "rlnNormCorrection",
    "log_likelihood": "rlnLogLikeliContribution",
    "max_probability": "rlnMaxValueProbDistribution",
    "n_significant": "rlnNrOfSignificantSamples",
}
CLASSES: Final[dict[str, str]] = {
    "image": "rlnReferenceImage",  # with image_index
    "distribution": "rlnClassDistribution",
    "accuracy_rotations": "rlnAccuracyRotations",
    "accuracy_translations": "rlnAccuracyTranslationsAngst",
    "estimated_resolution": "rlnEstimatedResolution",
    "completeness": "rlnOverallFourierCompleteness",
    "prior_offset_x": "rlnClassPriorOffsetX",
    "prior_offset_y": "rlnClassPriorOffsetY",
    "particle_count": "cryopickParticleCount",
    "soft_count": "cryopickSoftCount",
    "entropy": "cryopickEntropy",
}
SPECTRA: Final[dict[str, str]] = {
    "spectral_index": "rlnSpectralIndex",
    "frequency": "rlnResolution",
    "resolution": "rlnAngstromResolution",
    "ssnr": "rlnSsnrMap",
    "fsc": "rlnGoldStandardFsc",
    "completeness": "rlnFourierCompleteness",
    "sigma2": "rlnReferenceSigma2",
    "tau2": "rlnReferenceTau2",
    "orientability": "rlnSpectralOrientabilityContribution",
}
NOISE: Final[dict[str, str]] = {
    "spectral_index": "rlnSpectralIndex",
    "frequency": "rlnResolution",
    "sigma2": "rlnSigma2Noise",
}
GROUPS: Final[dict[str, str]] = {
    "group_number": "rlnGroupNumber",
    "group_name": "rlnGroupName",
    "particle_count": "rlnGroupNrParticles",
    "scale_correction": "rlnGroupScaleCorrection",
}

_MODEL_5: _Labels = {
    "rlnReferenceDimensionality": 2,
    "rlnDataDimensionality": 2,
    "rlnOriginalImageSize": Named("box_size"),
    "rlnCurrentResolution": Named("current_resolution"),
    "rlnCurrentImageSize": Named("current_size"),
    "rlnPaddingFactor": 2.0,
    "rlnIsHelix": 0,
    "rlnFourierSpaceInterpolator": 1,
    "rlnMinRadiusNnInterpolation": 10,
    "rlnPixelSize": Named("pixel_size"),
    "rlnNrClasses": Named("n_classes"),
    "rlnNrBodies": 1,
    "rlnNrGroups": Named("n_groups"),
    "rlnNrOpticsGroups": Named("n_optics_groups"),
    "rlnTau2FudgeFactor": Named("tau2_fudge"),
    "rlnNormCorrectionAverage": Named("average_norm_correction"),
    "rlnSigmaOffsetsAngst": Named("sigma_offset"),
    "rlnOrientationalPriorMode": 0,
    "rlnSigmaPriorRotAngle": 0.0,
    "rlnSigmaPriorTiltAngle": 0.0,
    "rlnSigmaPriorPsiAngle": 0.0,
    "rlnLogLikelihood": Named("log_likelihood"),
    "rlnAveragePmax": Named("average_max_probability"),
}
_MODEL_31 = {k: v for k, v in _MODEL_5.items() if k != "rlnNrOpticsGroups"}

_SAMPLING: _Labels = {
    "rlnIs3DSampling": 0,
    "rlnIs3DTranslationalSampling": 0,
    "rlnPsiStep": Named("psi_step"),
    "rlnOffsetRange": Named("offset_range"),
    "rlnOffsetStep": Named("offset_step"),
    "rlnHelicalOffsetStep": -1.0,
    "rlnSamplingPerturbInstance": Named("perturbation"),
    "rlnSamplingPerturbFactor": Named("perturbation_factor"),
    "rlnHealpixOrderOriginal": 2,
    "rlnPsiStepOriginal": Named("original_psi_step"),
    "rlnOffsetRangeOriginal": Named("original_offset_range"),
    "rlnOffsetStepOriginal": Named("original_offset_step"),
}

_FILES: _Labels = {
    "rlnOutputRootName": Named("root"),
    "rlnModelStarFile": Named("model_file"),
    "rlnExperimentalDataStarFile": Named("data_file"),
}
_START: _Labels = {
    "rlnOrientSamplingStarFile": Named("sampling_file"),
    "rlnCurrentIteration": Named("iteration"),
    "rlnNumberOfIterations": Named("n_iterations"),
    "rlnDoSplitRandomHalves": 0,
    "rlnJoinHalvesUntilThisResolution": -1.0,
    "rlnAdaptiveOversampleOrder": Named("oversampling"),
    "rlnAdaptiveOversampleFraction": 0.999,
    "rlnRandomSeed": Named("random_seed"),
    "rlnParticleDiameter": Named("particle_diameter"),
    "rlnWidthMaskEdge": Named("mask_edge_px"),
    "rlnDoZeroMask": Named("is_zero_masked"),
    "rlnDoSolventFlattening": Named("is_solvent_flattened"),
    "rlnDoSolventFscCorrection": 0,
    "rlnSolventMaskName": "None",
    "rlnSolventMask2Name": "None",
    "rlnBodyStarFile": "None",
    "rlnTauSpectrumName": "None",
    "rlnMaximumCoarseImageSize": -1,
    "rlnHighresLimitExpectation": Named("highres_limit"),
    "rlnLowresLimitExpectation": -1.0,
    "rlnIncrementImageSize": 10,
    "rlnDoMapEstimation": 1,
    "rlnDoFastSubsetOptimisation": 0,
    "rlnDoExternalReconstruct": 0,
}
_GRADIENT_5: _Labels = {
    "rlnDoBlush": 0,
    "rlnBlushNoSpectralTrailing": 0,
    "rlnDoGradientRefine": 0,
    "rlnDoStochasticGradientDescent": 0,
    "rlnGradEmIters": 0,
    "rlnGradHasConverged": 0,
    "rlnGradCurrentStepsize": 0.0,
    "rlnGradSubsetOrder": 0,
    "rlnGradSuspendFinerSamplingIter": -1,
    "rlnGradSuspendLocalSamplingIter": -1,
    "rlnSgdInitialIterationsFraction": 0.3,
    "rlnSgdFinalIterationsFraction": 0.2,
    "rlnSgdMinimumResolution": 20.0,
    "rlnSgdInitialResolution": -1.0,
    "rlnSgdFinalResolution": -1.0,
    "rlnSgdInitialSubsetSize": -1,
    "rlnSgdFinalSubsetSize": -1,
    "rlnSgdMuFactor": 0.0,
    "rlnSgdSkipAnneal": 0,
    "rlnSgdClassInactivityThreshold": 0.0,
    "rlnSgdSubsetSize": -1,
    "rlnSgdWriteEverySubset": 10,
    "rlnSgdStepsize": -1.0,
    "rlnSgdStepsizeScheme": "",
    "rlnTau2FudgeScheme": "",
    "rlnTau2FudgeArg": Named("tau2_fudge"),
    "rlnMaximumSignificantPoses": -1,
}
_GRADIENT_31: _Labels = {
    "rlnDoStochasticGradientDescent": 0,
    "rlnDoStochasticEM": 0,
    "rlnSgdInitialIterations": 50,
    "rlnSgdFinalIterations": 50,
    "rlnSgdInBetweenIterations": 200,
    "rlnSgdInitialResolution": 35.0,
    "rlnSgdFinalResolution": 15.0,
    "rlnSgdInitialSubsetSize": 100,
    "rlnSgdFinalSubsetSize": 500,
    "rlnSgdMuFactor": 0.0,
    "rlnSgdSigma2FudgeInitial": 8.0,
    "rlnSgdSigma2FudgeHalflife": -1,
    "rlnSgdSkipAnneal": 0,
    "rlnSgdSubsetSize": -1,
    "rlnSgdWriteEverySubset": 1,
    "rlnSgdStepsize": 0.5,
}
_PROGRESS: _Labels = {
    "rlnAutoLocalSearchesHealpixOrder": 4,
    "rlnNumberOfIterWithoutResolutionGain": 0,
    "rlnBestResolutionThusFar": Named("current_frequency"),
    "rlnNumberOfIterWithoutChangingAssignments": 0,
    "rlnDoSkipAlign": Named("skips_alignment"),
    "rlnDoSkipRotate": 0,
    "rlnOverallAccuracyRotations": Named("accuracy_rotations"),
    "rlnOverallAccuracyTranslationsAngst": Named("accuracy_translations"),
    "rlnChangesOptimalOrientations": Named("changes_orientations"),
    "rlnChangesOptimalOffsets": Named("changes_offsets"),
    "rlnChangesOptimalClasses": Named("changes_classes"),
    "rlnSmallestChangesOrientations": 999.0,
    "rlnSmallestChangesOffsets": 999.0,
    "rlnSmallestChangesClasses": 9999999,
    "rlnLocalSymmetryFile": "None",
    "rlnDoHelicalRefine": 0,
    "rlnIgnoreHelicalSymmetry": 0,
    "rlnFourierMask": "None",
    "rlnHelicalTwistInitial": 0.0,
    "rlnHelicalRiseInitial": 0.0,
    "rlnHelicalCentralProportion": 0.3,
    "rlnNrHelicalNStart": 1,
    "rlnHelicalMaskTubeInnerDiameter": -1.0,
    "rlnHelicalMaskTubeOuterDiameter": -1.0,
    "rlnHelicalSymmetryLocalRefinement": 0,
    "rlnHelicalSigmaDistance": -1.0,
    "rlnHelicalKeepTiltPriorFixed": 0,
    "rlnHasConverged": Named("has_converged"),
    "rlnHasHighFscAtResolLimit": 0,
    "rlnHasLargeSizeIncreaseIterationsAgo": 0,
    "rlnDoCorrectNorm": Named("corrects_norm"),
    "rlnDoCorrectScale": Named("corrects_scale"),
    "rlnDoCorrectCtf": Named("corrects_ctf"),
}
_CTF: _Labels = {
    "rlnDoIgnoreCtfUntilFirstPeak": Named("ignores_ctf_until_first_peak"),
    "rlnCtfDataArePhaseFlipped": Named("is_phase_flipped"),
    "rlnDoOnlyFlipCtfPhases": 0,
    "rlnRefsAreCtfCorrected": 1,
    "rlnFixSigmaNoiseEstimates": 0,
    "rlnFixSigmaOffsetEstimates": 0,
    "rlnMaxNumberOfPooledParticles": 30,
}

MODEL: Final[dict[RelionVersion, _Labels]] = {"3.1": _MODEL_31, "5": _MODEL_5}
SAMPLING: Final[dict[RelionVersion, _Labels]] = {"3.1": _SAMPLING, "5": _SAMPLING}
OPTIMISER: Final[dict[RelionVersion, _Labels]] = {
    "3.1": {
        **_FILES,
        **_START,
        **_GRADIENT_31,
        "rlnDoAutoRefine": 0,
        **_PROGRESS,
        **_CTF,
    },
    "5": {
        **_FILES,
        "rlnTomoTomogramsFile": "",
        "rlnTomoTrajectoriesFile": "",
        **_START,
        **_GRADIENT_5,
        "rlnDoAutoRefine": 0,
        "rlnDoAutoSampling": 0,
        **_PROGRESS,
        "rlnDoCenterClasses": Named("centers_classes"),
        **_CTF,
        "rlnOffsetRangeX": -1.0,
        "rlnOffsetRangeY": -1.0,
        "rlnOffsetRangeZ": -1.0,
    },
}
