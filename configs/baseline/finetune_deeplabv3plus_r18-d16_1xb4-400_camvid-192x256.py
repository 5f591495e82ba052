# Goes on from the baseline's checkpoint at a tenth of its learning rate: train that first, or set
# load_from. What methods that fine-tune are to be compared with.
_base_ = './deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py'
load_from = 'work_dirs/deeplabv3plus_r18-d16_1xb4-800_camvid-192x256/iter_800.pth'
train_cfg = dict(max_iters=400, val_interval=400)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-6, end=400, by_epoch=False)]
