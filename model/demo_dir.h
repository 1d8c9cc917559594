/* demo_dir.h: where the embedded demo model lies. */
#ifndef VL_DEMO_DIR_H
#define VL_DEMO_DIR_H

/* The folder of the demo checkpoint, or NULL if it cannot be found: $VITREOUS_DEMO, else
 * models/demo (a source tree) or share/vitreous/demo (an installation) in a folder above the
 * program or above libvitreous.so. The string lives as long as the process. */
const char *vl_demo_dir(void);

#endif
