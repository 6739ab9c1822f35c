//! The rules and their texts.

/// A build check. Names, texts and links are BuildKit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Keywords in one case, all through the file.
    ConsistentInstructionCasing,
    /// COPY or ADD of what the ignore file leaves out.
    CopyIgnoredFile,
    /// Two stages of one name.
    DuplicateStageName,
    /// EXPOSE with an address, or a port of the host.
    ExposeInvalidFormat,
    /// A protocol in EXPOSE that is not in lower case.
    ExposeProtoCasing,
    /// `FROM x as y`: keywords in different case.
    FromAsCasing,
    /// `FROM --platform` with a value that is no variable.
    FromPlatformFlagConstDisallowed,
    /// A base image for another platform.
    InvalidBaseImagePlatform,
    /// FROM with variables whose defaults make no image name.
    InvalidDefaultArgInFrom,
    /// A comment above FROM or ARG that does not describe it. Experimental.
    InvalidDefinitionDescription,
    /// CMD or ENTRYPOINT as a text for the shell.
    JsonArgsRecommended,
    /// `ENV name value`.
    LegacyKeyValueFormat,
    /// MAINTAINER.
    MaintainerDeprecated,
    /// CMD, ENTRYPOINT or HEALTHCHECK twice.
    MultipleInstructionsDisallowed,
    /// An empty line inside of an instruction.
    NoEmptyContinuation,
    /// `FROM --platform=$TARGETPLATFORM`.
    RedundantTargetPlatform,
    /// A stage named `scratch` or `context`.
    ReservedStageName,
    /// A variable that is named like a secret.
    SecretsUsedInArgOrEnv,
    /// A stage name with capitals.
    StageNameCasing,
    /// A variable in FROM that no ARG declares.
    UndefinedArgInFrom,
    /// A variable that is not set.
    UndefinedVar,
    /// A relative WORKDIR without an absolute one before it.
    WorkdirRelativePath,
}

/// What is fixed about a rule.
struct Facts {
    name: &'static str,
    description: &'static str,
    url: &'static str,
}

macro_rules! facts {
    ($name:literal, $slug:literal, $description:literal $(,)?) => {
        Facts {
            name: $name,
            description: $description,
            url: concat!("https://docs.docker.com/go/dockerfile/rule/", $slug, "/"),
        }
    };
}

impl Rule {
    /// Returns its name, as in `# check=skip=NAME`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Returns what it asks for, in one sentence.
    pub fn description(self) -> &'static str {
        self.facts().description
    }

    /// Returns where to read more; empty for nowhere.
    pub fn url(self) -> &'static str {
        self.facts().url
    }

    /// Returns whether it is off unless asked for.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    fn facts(self) -> Facts {
        match self {
            Self::ConsistentInstructionCasing => facts!(
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Self::CopyIgnoredFile => facts!(
                "CopyIgnoredFile",
                "copy-ignored-file",
                "Attempting to Copy file that is excluded by .dockerignore",
            ),
            Self::DuplicateStageName => facts!(
                "DuplicateStageName",
                "duplicate-stage-name",
                "Stage names should be unique",
            ),
            Self::ExposeInvalidFormat => facts!(
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
            ),
            Self::ExposeProtoCasing => facts!(
                "ExposeProtoCasing",
                "expose-proto-casing",
                "Protocol in EXPOSE instruction should be lowercase",
            ),
            Self::FromAsCasing => facts!(
                "FromAsCasing",
                "from-as-casing",
                "The 'as' keyword should match the case of the 'from' keyword",
            ),
            Self::FromPlatformFlagConstDisallowed => facts!(
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform flag should not use a constant value",
            ),
            // BuildKit has no page for it.
            Self::InvalidBaseImagePlatform => Facts {
                name: "InvalidBaseImagePlatform",
                description: "Base image platform does not match expected target platform",
                url: "",
            },
            Self::InvalidDefaultArgInFrom => facts!(
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Self::InvalidDefinitionDescription => facts!(
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
            ),
            Self::JsonArgsRecommended => facts!(
                "JSONArgsRecommended",
                "json-args-recommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            ),
            Self::LegacyKeyValueFormat => facts!(
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Self::MaintainerDeprecated => facts!(
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Self::MultipleInstructionsDisallowed => facts!(
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Self::NoEmptyContinuation => facts!(
                "NoEmptyContinuation",
                "no-empty-continuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Self::RedundantTargetPlatform => facts!(
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            Self::ReservedStageName => facts!(
                "ReservedStageName",
                "reserved-stage-name",
                "Reserved words should not be used as stage names",
            ),
            Self::SecretsUsedInArgOrEnv => facts!(
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Self::StageNameCasing => facts!(
                "StageNameCasing",
                "stage-name-casing",
                "Stage names should be lowercase",
            ),
            Self::UndefinedArgInFrom => facts!(
                "UndefinedArgInFrom",
                "undefined-arg-in-from",
                "FROM command must use declared ARGs",
            ),
            Self::UndefinedVar => facts!(
                "UndefinedVar",
                "undefined-var",
                "Variables should be defined before their use",
            ),
            Self::WorkdirRelativePath => facts!(
                "WorkdirRelativePath",
                "workdir-relative-path",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
            ),
        }
    }
}
