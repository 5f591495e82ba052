# What A-FAN's views share in the authors' releases.
release_view = dict(
    type='mmfeataug.AFAN',
    unit='absolute',
    direction='gradient',
    steps=1,
    side='output',
    bn='shared',
)
