"""Owns every setting: one class, read once from the environment and ``.env``."""

from ai_lab.settings.entries import AliasEntry, PriceEntry, ServerEntry, ServiceLimits, check_base_url
from ai_lab.settings.environment import environment_without_secrets, forget_environment_secrets
from ai_lab.settings.settings import PROJECT_ROOT, Settings, default_config_dir, default_data_dir, setting_names

__all__ = [
    "PROJECT_ROOT",
    "AliasEntry",
    "PriceEntry",
    "ServerEntry",
    "ServiceLimits",
    "Settings",
    "check_base_url",
    "default_config_dir",
    "default_data_dir",
    "environment_without_secrets",
    "forget_environment_secrets",
    "setting_names",
]
