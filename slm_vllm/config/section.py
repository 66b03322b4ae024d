"""The base class of all configuration sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from slm_vllm.paths import expanded, folder_name

UserPath = Annotated[str, AfterValidator(expanded)]
"""A path, or a name in its place."""

FolderName = Annotated[str, AfterValidator(folder_name)]
"""The name of one folder."""


class Section(BaseModel):
    """A frozen configuration section that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        coerce_numbers_to_str=True,  # YAML reads `name: 2024` as a number
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes true for 1, and YAML takes `yes` and `on` for true."""
        if isinstance(value, bool) and info.field_name:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = get_args(annotation) or (annotation,)
            if bool not in kinds and (int in kinds or float in kinds):
                raise ValueError(f"must be a number, found {str(value).lower()}")
        return value

    @field_validator("name", "path", check_fields=False)
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value

    @classmethod
    def known_keys(cls) -> Mapping[str, FieldInfo]:
        """The keys that this section may have, with what each holds."""
        return cls.model_fields

    @classmethod
    def may_have_more(cls) -> bool:
        """Whether keys beside those are left to the validation of the whole."""
        return False
