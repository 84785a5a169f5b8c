/*
 * image_worker.h - the heavy and risky part of images, in a process of its own: `agentd image-worker`.
 *
 * A job comes as JSON on standard input, its result goes as JSON to standard output. The worker fetches (skopeo) or
 * unpacks an archive into a scratch folder, checks every digest, and moves finished layers into the store. It never
 * touches the index: what it leaves when it is killed is unreferenced, and images.c removes it.
 *
 *   {"Op":"load","File":path}                              -> {"Images":[entry...]}    (entries as in image_index.h)
 *   {"Op":"pull","Image":ref,"Auth":{..},"Insecure":bool,"Known":[digest..]}
 *                                                          -> {"Images":[entry],"Digest":..} or
 * {"UpToDate":true,"Digest":..}
 *   {"Op":"resolve","Image":ref,"Auth":{..},"Insecure":bool} -> {"MediaType","Digest","Size","Architecture","OS"}
 *   each with "Store" (folder) and "Tmp" (scratch folder), "Run" (a tmpfs folder for credentials), "LayerMax" (bytes
 *   that a layer may have when unpacked; 0: any number)
 *   failures                                               -> {"Code":err_code,"Error":text}
 */
#pragma once

int image_worker_main(void);

/* Names inside the store folder. */
#define LAYER_NAME_LEN 24 /* hex digits of the diff id: overlayfs options must fit in one page */
