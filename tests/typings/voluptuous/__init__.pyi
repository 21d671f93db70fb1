# At run time Home Assistant answers `import voluptuous` with its own engine.
from probatio import *
from probatio import (
    All as All,
    Coerce as Coerce,
    In as In,
    Marker as Marker,
    Optional as Optional,
    Required as Required,
    Schema as Schema,
)
